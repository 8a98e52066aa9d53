"""Care of a bank: verify, set damage aside, heal, relabel, remove."""
