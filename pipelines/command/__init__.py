"""What every command line shares: flags, progress, outputs, signals, and who does the work."""
