"""The run folder, and the run's record, heartbeat, ledger and watchdog; modules are light."""
