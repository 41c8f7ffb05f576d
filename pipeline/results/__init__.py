"""Ask a finished run, without its model and its data; export it; draw its report."""
