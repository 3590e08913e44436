"""From the numbers of sweeps and evaluations to findings: tables and figures."""
