"""The command line: Hydra's config, jobs, sweeps, launchers, tracking."""
