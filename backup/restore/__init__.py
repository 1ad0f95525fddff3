"""Plans what a restore would do, and carries it out. Begin with `build` and `plan`."""
