"""The command line: argv to frozen settings to one call to text or JSON."""
