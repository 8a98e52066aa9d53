"""Throughput, each script side by side with what one would use instead; `embank bench NAME`."""
