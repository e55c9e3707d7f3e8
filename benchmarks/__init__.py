"""Programs that measure; docs/performance.md says how to run them and what they gave."""
