# Checks of pint that do not hold for these rules: pint --config alerts/.pint.hcl --offline lint alerts/storagenode.rules.yml

rule {
  match {
    kind = "alerting"
    name = "StorageNodeWatchdog"
  }
  # It has to fire always: a dead man's switch waits for its silence.
  disable = ["alerts/comparison"]
}
