"""Every page and picture sheet that the commands write."""
