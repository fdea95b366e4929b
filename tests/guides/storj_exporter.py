"""A stand-in for Storj-Exporter: any path, its metric names and labels, read from a node's API at each scrape.

`python -m tests.guides.storj_exporter HOST:PORT API`. When the API does not answer, the scrape succeeds with nothing of
the node in it, as it does there.
"""

import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily, InfoMetricFamily
from prometheus_client.registry import Collector

_INFO = ("nodeID", "wallet", "upToDate", "version", "allowedVersion", "quicStatus")
_SATELLITE = ("12EayRS2V1kEsWESU9QMRseFhdxYxKicsiFmxrsLZHeLUtdps3S", "us1.storj.io:7777")
_OF_SATELLITES: Mapping[str, tuple[str, ...]] = {
    "storj_sat_summary": ("storageSummary", "bandwidthSummary", "egressSummary", "ingressSummary", "disqualified"),
    "storj_sat_audit": ("auditScore", "suspensionScore", "onlineScore"),
    "storj_sat_month_egress": ("repair", "audit", "usage"),
    "storj_sat_month_ingress": ("repair", "usage"),
    "storj_sat_day_egress": ("repair", "audit", "usage"),
    "storj_sat_day_ingress": ("repair", "usage"),
    "storj_sat_day_storage": ("atRestTotal",),
}


class Node(Collector):
    """What one node says."""

    def __init__(self, api: str) -> None:
        self._url = f"http://{api}/api/sno/"

    def collect(self) -> Iterator[Metric]:
        try:
            with urllib.request.urlopen(self._url, timeout=5) as answer:
                said: dict[str, Any] = json.load(answer)
        except OSError:
            return
        info = InfoMetricFamily("storj_node", "About the node.", labels=["type"])
        for key in _INFO:
            info.add_metric([key], {key: str(said[key])})
        yield info
        for name, key in {"storj_total_diskspace": "diskSpace", "storj_total_bandwidth": "bandwidth"}.items():
            total = GaugeMetricFamily(name, f"Of {key}.", labels=["type"])
            for kind, value in said[key].items():
                total.add_metric([kind], value)
            yield total
        for name, kinds in _OF_SATELLITES.items():
            family = GaugeMetricFamily(name, "Of a satellite.", labels=["type", "satellite", "url"])
            for kind in kinds:
                family.add_metric([kind, *_SATELLITE], 0)
            yield family
        payout = GaugeMetricFamily("storj_payout_currentMonth", "Of this month.", labels=["type"])
        payout.add_metric(["payout"], 0)
        yield payout


def main(address: str, api: str) -> None:
    registry = CollectorRegistry()
    registry.register(Node(api))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(generate_latest(registry))

        def log_message(self, format: str, *args: object) -> None:
            pass

    host, _, port = address.rpartition(":")
    ThreadingHTTPServer((host, int(port)), Handler).serve_forever()


if __name__ == "__main__":
    main(*sys.argv[1:])
