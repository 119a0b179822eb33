"""One release reaches four devices, each by another way, and what passes is what was planned."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from fleet.demo import training
from tests.simulators.counting_proxy import CountingProxy
from tests.simulators.every_way import BROKER_ONLY, SHARES, bring, every_way, knows_peers, pieces_bytes, start, told
from tests.simulators.fleet import Fleet

pytestmark = pytest.mark.flow

NOWHERE = "http://127.0.0.1:9"


@pytest.fixture
def open_fleet(tmp_path: Path, mosquitto: int) -> Iterator[Fleet]:
    with every_way(tmp_path / "fleet", mosquitto) as fleet:
        yield fleet


def test_a_release_comes_by_http_from_a_peer_through_the_broker_and_from_a_bundle(
    open_fleet: Fleet, tmp_path: Path
) -> None:
    fleet = open_fleet
    with ExitStack() as stack:
        counted = stack.enter_context(CountingProxy(fleet.url))
        # After the role of the model everything is verified, and the content key was in the announcement.
        cut = stack.enter_context(CountingProxy(fleet.url, cut_after=lambda path: ".model-digits.json" in path))
        start(fleet, "cam-http", counted.url, peers=SHARES)
        start(fleet, "cam-mqtt", NOWHERE, update=BROKER_ONLY)
        start(fleet, "cam-usb", NOWHERE)
        model = training.train(fleet.digits.train, hidden=8000, rounds=1, seed=0)  # several chunks
        fleet.publish_bytes("1.0.0", model, fleet.digits.reference)
        total = int(fleet.operator.asks("model", "show", "digits@1.0.0")["sealed_bytes"])
        assert total > 1_500_000

        first = fleet.start_rollout("1.0.0", "--target", "cam-http,cam-mqtt")
        assert bring(fleet, "cam-usb", "digits@1.0.0", tmp_path / "usb") == total
        assert fleet.ended(first)["state"] == "completed"

        start(fleet, "cam-peer", cut.url, peers=SHARES)
        knows_peers(fleet, "cam-peer")
        ended = fleet.ended(fleet.start_rollout("1.0.0", "--target", "cam-peer"))
        assert ended["state"] == "completed", fleet.household.log("cam-peer", 60)
        assert cut.cut

        ways = {"cam-http": "manager", "cam-mqtt": "mqtt", "cam-usb": "bundle", "cam-peer": "peer"}
        for device, way in ways.items():
            report = told(fleet, device, "1.0.0")
            assert (report["total_bytes"], report["fetched_bytes"]) == (total, total), device
            assert report["sources"] == {way: total}, device
        assert counted.chunk_bytes == total
        assert cut.chunk_bytes == 0
        assert total < pieces_bytes(fleet) < total + 64 * 1024  # and heads, the manifest, signed documents
        assert ended["bytes"] == {"planned": total, "fetched": total, "by_source": {"peer": total}}
