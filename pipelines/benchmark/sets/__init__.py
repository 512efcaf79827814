"""Published data sets with their protocols, by the names that segswap-benchmark knows."""

from pipelines.benchmark.base import Benchmark
from pipelines.benchmark.sets.animals import ANIMALS
from pipelines.benchmark.sets.brueghel import BRUEGHEL
from pipelines.benchmark.sets.cosegmentation import COSEGMENTATION
from pipelines.benchmark.sets.davis import DAVIS
from pipelines.benchmark.sets.objects import COSEG, INTERNET
from pipelines.benchmark.sets.oxford import OXFORD
from pipelines.benchmark.sets.places import PITTS, TOKYO
from pipelines.benchmark.sets.proposal_flow import PASCAL, WILLOW
from pipelines.benchmark.sets.spair import SPAIR
from pipelines.benchmark.sets.tss import TSS
from pipelines.benchmark.sets.wxbs import WXBS

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        INTERNET, BRUEGHEL, TOKYO, PITTS, WILLOW, PASCAL, TSS, SPAIR, ANIMALS,
        COSEGMENTATION, DAVIS, COSEG, OXFORD, WXBS,
    )
}  # fmt: skip
