"""`avloc distill-cache`: run the frozen teachers once over a store and save their hints, one folder per teacher.

Interrupted jobs resume, and a hint depends neither on that nor on `batch` or `workers`. Clips that failed are listed in
`failed.jsonl` of the folder and retried by the next job.
"""

from avloc.distill.cache import distill_cache
from avloc.distill.plan import PUBLISHED_TEACHERS, TEACHERS, DistillOptions, DistillReport, TeacherReport

__all__ = ["PUBLISHED_TEACHERS", "TEACHERS", "DistillOptions", "DistillReport", "TeacherReport", "distill_cache"]
