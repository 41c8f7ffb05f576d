"""What people see in a notebook or a terminal: tables of results, small pictures, a line of progress."""
