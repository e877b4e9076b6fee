"""Report: results gathered over seeds, as tables, pictures and one page."""
