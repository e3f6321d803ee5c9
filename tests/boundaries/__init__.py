"""Every step of every kind of job, its worker killed at each moment in which the world outside could tell."""
