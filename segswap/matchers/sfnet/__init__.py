"""SFNet: positions by a kernel soft argmax, learned from masks alone (Lee et al., CVPR 2019)."""
