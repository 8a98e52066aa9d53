"""Fault injection: kills, failing disks and stores, power cuts and races, and the recovery from them."""
