"""Published data sets with their protocols, by the names that segswap-benchmark knows."""

from pipelines.benchmarks.base import Benchmark
from pipelines.benchmarks.brueghel import BRUEGHEL
from pipelines.benchmarks.davis import DAVIS
from pipelines.benchmarks.objects import COSEG, INTERNET
from pipelines.benchmarks.oxford import OXFORD
from pipelines.benchmarks.places import PITTS, TOKYO
from pipelines.benchmarks.proposal_flow import PASCAL, WILLOW
from pipelines.benchmarks.spair import SPAIR
from pipelines.benchmarks.tss import TSS

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.name: benchmark
    for benchmark in (
        INTERNET, BRUEGHEL, TOKYO, PITTS, WILLOW, PASCAL, TSS, SPAIR, DAVIS, COSEG, OXFORD
    )
}  # fmt: skip
