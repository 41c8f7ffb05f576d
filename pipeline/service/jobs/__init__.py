"""Jobs that the service starts and watches: `actisketch run` as processes of their own, from a queue in a table."""
