"""Where images come from: folders, lists, torch datasets, the demo; and how they are split and listed."""
