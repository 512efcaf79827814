"""Where users get the data of the benchmarks, by the names that segswap-benchmark knows."""

SOURCES = {
    "internet": "https://people.csail.mit.edu/mrub/ObjectDiscovery/",
    "brueghel": "https://github.com/XiSHEN0220/SegSwap (data/Brueghel)",
    "tokyo247": (
        "http://www.ok.ctrl.titech.ac.jp/~torii/project/247/ (tokyo247.mat: "
        "https://www.di.ens.fr/willow/research/netvlad/)"
    ),
    "pitts30k": (
        "http://www.ok.ctrl.titech.ac.jp/~torii/project/repttile/ (pitts30k_test.mat: "
        "https://www.di.ens.fr/willow/research/netvlad/)"
    ),
    "pf-willow": (
        "https://www.di.ens.fr/willow/research/proposalflow/ and "
        "https://www.di.ens.fr/willow/research/cnngeometric/other_resources/test_pairs_pf.csv"
    ),
    "pf-pascal": (
        "https://www.di.ens.fr/willow/research/proposalflow/ and "
        "https://www.di.ens.fr/willow/research/cnngeometric/other_resources/test_pairs_pf_pascal.csv"
    ),
    "tss": "https://taniai.space/projects/cvpr16_dccs/",
    "spair": "https://cvlab.postech.ac.kr/research/SPair-71k/",
    "animals": (
        "https://sites.google.com/view/animal-pose/ (keypoints) and "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2012/ (pictures, masks)"
    ),
    "cosegmentation": (
        "any co-segmentation or video set brought to this layout, such as "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/ or "
        "https://davischallenge.org/davis2016/code.html"
    ),
    "davis-retrieval": "https://davischallenge.org/davis2016/code.html",
    "coseg": (
        "any co-segmentation set brought to this layout, such as "
        "http://host.robots.ox.ac.uk/pascal/VOC/voc2010/"
    ),
    "oxford": (
        "https://www.robots.ox.ac.uk/~vgg/research/affine/ or "
        "https://github.com/hpatches/hpatches-dataset"
    ),
    "wxbs": "https://github.com/ducha-aiki/wxbs-benchmark",
}
