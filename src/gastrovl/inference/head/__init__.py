"""Questions to what the perception head says, at first and at second sight."""
