"""Where images and segments come from: COCO annotations, folders, built-in photographs."""
