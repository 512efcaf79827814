"""LDF, label decoupling (Wei et al., CVPR 2020, arXiv 2008.11048): what stands out in an image."""
