"""Images and bytes, in files of this machine or at a URL."""
