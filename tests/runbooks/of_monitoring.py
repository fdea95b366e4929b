"""The runbooks about what watches: brought into its state, looked at, mended."""

from tests.e2e.site import EXPORTER, TOKEN_FILE, WEBHOOK
from tests.runbooks.book import INSTANCE, Book
from tests.runbooks.monitored import MONITORING_TOKEN, Monitored, until


def exporter_down(host: Monitored) -> None:
    with host.installed("healthy") as node:
        book = Book(host, "StorageNodeExporterDown", NODE=node.name, INSTANCE=INSTANCE)
        node.install().start()
        host.watch(node)
        host.container.systemctl("disable", "--now", "--quiet", EXPORTER)
        host.wait_query('up{job="storagenode"} == 0')
        book.fires()
        assert "=> 0 @" in book.look()
        book.look(3)
        book.silence({"instance": INSTANCE})
        book.mend()
        book.ends()
        host.wait_query(f'storagenode_up{{node="{node.name}"}} == 1')
        book.assert_all_run()


def webhook_down(host: Monitored) -> None:
    book = Book(host, "StorageNodeWebhookDown", INSTANCE="127.0.0.1:19652")
    host.container.systemctl("disable", "--now", "--quiet", WEBHOOK)
    host.wait_query('up{job="storagenode-remediate"} == 0')
    book.fires()
    book.look(3)
    assert "=> 0 @" in book.look()
    book.silence({"instance": "127.0.0.1:19652"})
    book.mend()
    book.ends()
    assert host.container.show(WEBHOOK, "UnitFileState")["UnitFileState"] == "enabled"
    book.assert_all_run()


def not_delivered(host: Monitored) -> None:
    """The token has changed, and Alertmanager's copy has not."""
    with host.installed("asked") as node:
        book = Book(host, "StorageNodeAlertsNotDelivered")
        node.install().start()
        host.watch(node, webhook=True)
        host.container.path(MONITORING_TOKEN).write_text("another\n")
        labels = {"alertname": "StorageNodeDeadlocked", "remediation": "offline-update", "node": node.name}
        host.post_alert(labels)
        book.fires()
        until(lambda: "401" in host.container.journal("prometheus-alertmanager.service"), "it says why")
        said = book.look()
        assert 'integration="webhook"' in said
        assert "unexpected status code 401" in said
        book.silence({"integration": "email"}, spares={"alertname": book.name, "integration": "webhook"})
        book.mend()
        # Its end is not waited for: what has failed counts for some time after. That it arrives is seen at the webhook.
        decided = f'storagenode_remediation_decisions_total{{node="{node.name}", reason="current"}} > 0'
        host.wait_query(decided)
        assert (host.container.path(TOKEN_FILE).read_text()) == host.container.path(MONITORING_TOKEN).read_text()
        book.mend()
        host.post_alert(labels, endsAt="2020-01-01T00:00:00Z")
        book.assert_all_run()


def watchdog(host: Monitored) -> None:
    """It stops coming: Alertmanager is down."""
    book = Book(host, "StorageNodeWatchdog")
    book.fires()
    host.container.systemctl("stop", "prometheus-alertmanager")
    book.look(3)
    host.container.systemctl("start", "prometheus-alertmanager")
    until(lambda: host.has_alert("StorageNodeWatchdog"), "it has come")
    assert "StorageNodeWatchdog" in book.look()
    book.silence({"alertname": "StorageNodeDeadlocked", "node": "n"}, spares={"alertname": book.name, "node": "n"})
    host.container.systemctl("stop", "prometheus-alertmanager")
    book.mend()
    until(lambda: host.has_alert("StorageNodeWatchdog"), "it comes again")
    book.assert_all_run()
