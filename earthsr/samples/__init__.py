"""Sample data that need no download: embedded terrain, and a synthetic world."""
