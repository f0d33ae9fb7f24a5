"""What people read of a study: tables in the terminal, and a page that answers the question."""
