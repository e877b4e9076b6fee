"""What is known of clips before any is opened: tables that people write and their checker, variants; and failures."""
