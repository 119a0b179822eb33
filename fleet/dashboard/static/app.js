// Everything that is not HTML over the stream: theme, keys, palette, dialogs, actions, the filter, the live badge.
(() => {
  const one = (query) => document.querySelector(query), all = (query) => [...document.querySelectorAll(query)];
  const root = document.documentElement;

  // ---- theme
  function flip() {
    const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
    root.dataset.theme = dark ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* storage may be off */ }
    dispatchEvent(new Event("flotilla:theme"));
  }

  // ---- what was typed, chosen or opened survives updates: rows keep their visibility through a morph
  window.htmx?.registerExtension("keep", {
    htmx_before_morph_attr: (element, { attrName }) => !(attrName === "hidden" && element.matches("#rows > tr")),
  });

  // ---- device table: words are substrings, `psi>0.15` compares
  const typed = one("#q"), PAGE = 15;
  let view = "all", limit = PAGE;
  const fits = (row, word) => {
    const asked = /^psi([<>])(\d*\.?\d+)$/.exec(word);
    if (!asked) return row.dataset.find.includes(word);
    const psi = row.dataset.psi;
    return psi !== undefined && (asked[1] === ">" ? +psi > +asked[2] : +psi < +asked[2]);
  };
  function filter() {
    const table = one("#devices");
    if (!typed || !table) return;
    const words = typed.value.toLowerCase().split(/\s+/).filter(Boolean);
    let fitting = 0, shown = 0;
    for (const row of all("#rows > tr[data-find]")) {
      const fit = (view === "all" || !["ok", "can"].includes(row.dataset.state)) && words.every((word) => fits(row, word));
      fitting += fit;
      const show = fit && shown < limit;
      shown += show;
      if (row.hidden === show) row.hidden = !show;
    }
    const say = fitting ? `${shown} of ${fitting}, worst first` : +table.dataset.total ? "No device fits. Esc in the filter shows all." : "";
    if (one("#shown").textContent !== say) one("#shown").textContent = say;
    one("#more").hidden = shown >= fitting;
    for (const button of all("[data-view]")) {
      const count = table.dataset[button.dataset.view === "all" ? "total" : "attention"];
      const label = button.dataset.view === "all" ? "All" : "Needs attention";
      if (button.dataset.count !== count) { button.dataset.count = count; button.replaceChildren(label, Object.assign(document.createElement("em"), { textContent: count })); }
      button.setAttribute("aria-pressed", String(button.dataset.view === view));
    }
  }
  function seek(text) { typed.value = text; view = "all"; limit = PAGE; filter(); }
  if (typed) {
    typed.value = new URLSearchParams(location.search).get("q") || "";
    typed.addEventListener("input", () => { limit = PAGE; filter(); });
    filter();
    document.addEventListener("htmx:after:swap", filter);
  }

  // ---- live badge: never pretend to be live
  const badge = one("#live"), stream = one("#stream"), STALE = 12;
  let beat = performance.now(), state = "wait";
  function tell(now, words) {
    state = now;
    if (badge.dataset.s === now && badge.lastChild.textContent === words) return;
    badge.dataset.s = now;
    badge.lastChild.textContent = words;
    document.body.classList.toggle("stale", now === "down");
  }
  if (badge && stream) {
    const fresh = () => { beat = performance.now(); tell("up", "Live"); };
    const lost = () => tell("down", age() < 60 ? "Reconnecting" : `Reconnecting, ${Math.round(age() / 60)} min old`);
    const age = () => (performance.now() - beat) / 1000;
    stream.addEventListener("beat", fresh);
    document.addEventListener("htmx:sse:after:message", fresh);
    document.addEventListener("htmx:sse:error", (event) => (event.detail?.status === 401 ? location.reload() : lost()));
    document.addEventListener("visibilitychange", () => { if (!document.hidden) beat = Math.max(beat, performance.now() - STALE * 500); });
    setInterval(async () => {
      if (document.hidden || age() < STALE) return;
      lost();
      if (stream._htmx?.sse || age() < 2 * STALE) return;
      try { if ((await fetch("/healthz")).ok) location.reload(); } catch { /* still away */ }
    }, 2000);
  }

  // ---- words that stay for a moment
  let quiet = 0;
  function toast(words, bad = false) {
    const box = one("#toast");
    if (!box) return;
    box.textContent = words;
    box.className = bad ? "show bad" : "show";
    clearTimeout(quiet);
    quiet = setTimeout(() => { box.className = ""; }, bad ? 9000 : 2500);
  }
  async function copy(text) {
    try { await navigator.clipboard.writeText(text); } catch {
      const area = Object.assign(document.createElement("textarea"), { value: text, className: "sr" });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
    toast("Copied");
  }

  // ---- actions go to the same API as the CLI's; the button is busy until it answers
  async function post(button) {
    button.disabled = true;
    button.setAttribute("aria-busy", "true");
    const key = [...crypto.getRandomValues(new Uint8Array(16))].map((byte) => byte.toString(16).padStart(2, "0")).join("");
    const headers = { Accept: "application/json", "Idempotency-Key": key, "X-CSRF-Token": one("meta[name=csrf-token]").content };
    if (button.dataset.body) headers["Content-Type"] = "application/json";
    try {
      const answer = await fetch(button.dataset.post, { method: "POST", headers, body: button.dataset.body || undefined });
      if (answer.ok) {
        button.closest("dialog")?.close();
        if (button.dataset.then) location.href = button.dataset.then;
        return;
      }
      const problem = await answer.json().catch(() => ({ title: `The manager answered ${answer.status}` }));
      toast([problem.detail || problem.title, problem.hint].filter(Boolean).join(". "), true);
    } catch {
      toast("The manager cannot be reached. Nothing was changed; try again.", true);
    } finally {
      button.disabled = false;
      button.removeAttribute("aria-busy");
    }
  }

  // ---- dialogs and the palette
  function open(name) {
    const dialog = document.getElementById(name);
    if (!dialog || dialog.open) return;
    all("dialog[open]").forEach((other) => other.close());
    dialog.showModal();
    if (name === "palette") { one("#palette-q").value = ""; find(); }
  }
  function find() {
    const words = one("#palette-q").value.toLowerCase().split(/\s+/).filter(Boolean);
    let found = 0;
    for (const item of all("#palette-list > li")) {
      item.hidden = !words.every((word) => item.textContent.toLowerCase().includes(word)) || found >= 60;
      found += !item.hidden;
    }
    one("#palette .none").hidden = found > 0;
  }
  one("#palette-q")?.addEventListener("input", find);
  one("#palette")?.addEventListener("keydown", (event) => {
    const links = all("#palette-list > li:not([hidden]) > a"), at = links.indexOf(document.activeElement);
    if (event.key === "Enter" && at < 0) { event.preventDefault(); links[0]?.click(); }
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (!step) return;
    event.preventDefault();
    (at + step < 0 ? one("#palette-q") : links[Math.min(at + step, links.length - 1)])?.focus();
  });

  document.addEventListener("click", (event) => {
    const hit = (query) => event.target.closest?.(query);
    if (event.target.matches?.("dialog")) event.target.close();
    if (hit("[data-close]")) hit("dialog").close();
    if (hit("[data-theme-flip]")) { event.preventDefault(); flip(); hit("dialog")?.close(); }
    if (hit("[data-open]")) { event.preventDefault(); open(hit("[data-open]").dataset.open); }
    if (hit("[data-copy]")) copy(hit("[data-copy]").dataset.copy);
    if (hit("[data-post]")) post(hit("[data-post]"));
    if (hit("[data-view]")) { view = hit("[data-view]").dataset.view; limit = PAGE; filter(); }
    if (hit("#more")) { limit += 50; filter(); }
    if (typed && hit("a[data-find]") && !event.ctrlKey && !event.metaKey) {
      event.preventDefault();
      seek(hit("a[data-find]").dataset.find);
      typed.focus();
    }
  });
  const hash = () => { if (["enrol", "publish"].includes(location.hash.slice(1))) open(location.hash.slice(1)); };
  addEventListener("hashchange", hash);
  hash();

  // ---- keys
  let g = 0;
  addEventListener("keydown", (event) => {
    if ((event.metaKey || event.ctrlKey) && event.key.toLowerCase() === "k") { event.preventDefault(); open("palette"); return; }
    if (event.key === "Escape" && event.target === typed && typed) { seek(""); return; }
    if (event.target.matches?.("input:not([type=checkbox]), textarea") || event.metaKey || event.ctrlKey || event.altKey) return;
    if (event.key === "/" && typed) { event.preventDefault(); typed.focus(); }
    if (event.key === "t") flip();
    if (event.key === "?") open("keys");
    if (event.key === "e") one("#enrol") ? open("enrol") : one("#palette") && (location.href = "/fleet#enrol");
    if (event.key === "g") g = Date.now();
    else if (Date.now() - g < 900) { const to = { f: "/fleet", r: "/rollouts", d: "/drift" }[event.key]; if (to) location.href = to; }
  });
})();
