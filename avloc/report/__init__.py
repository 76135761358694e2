"""The report of an evaluation: a folder of plain files and one page to look at them.

It takes the plain data of `EvalReport.as_json()` and knows nothing of models, stores or the terminal.
"""

from avloc.report.pictures import ReportPicture
from avloc.report.write import prepare_folder, write_report

__all__ = ["ReportPicture", "prepare_folder", "write_report"]
