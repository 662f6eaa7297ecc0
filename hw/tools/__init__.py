"""External programs: found, run, stopped, and what they made kept."""
