"""Pictures of probes besides the choice of C: reliability, ROC and precision-recall, confusion, strata."""
