"""One round: who takes part, what runs, what it costs."""
