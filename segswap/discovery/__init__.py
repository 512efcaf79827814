"""What repeats in a collection: links between images, their graph, its groups."""
