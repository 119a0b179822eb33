// Before the first paint: the theme that was chosen, or `?theme=`; else the system's.
(() => {
  let kept = "";
  try { kept = localStorage.getItem("theme") || ""; } catch { /* storage may be off */ }
  const asked = new URLSearchParams(location.search).get("theme") || kept;
  if (asked === "light" || asked === "dark") document.documentElement.dataset.theme = asked;
})();
