"""`avloc distill-cache`: run the frozen teachers once over a store and keep what they say beside the clips.

One folder of hints per teacher, stamped. A run picks up where the last one ended, at any point, and a clip's hint
depends neither on that nor on `batch` or `workers`. Clips that failed stand in `failed.jsonl` of the hints' folder and
are tried again by the next run.
"""

from avloc.distill.cache import distill_cache
from avloc.distill.plan import PUBLISHED_TEACHERS, TEACHERS, DistillOptions, DistillReport, TeacherReport

__all__ = ["PUBLISHED_TEACHERS", "TEACHERS", "DistillOptions", "DistillReport", "TeacherReport", "distill_cache"]
