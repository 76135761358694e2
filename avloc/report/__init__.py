"""Report of an evaluation: a folder with JSON, CSV and an HTML page, from the plain data of `EvalReport.as_json()`."""

from avloc.report.pictures import ReportPicture
from avloc.report.write import prepare_folder, write_report

__all__ = ["ReportPicture", "prepare_folder", "write_report"]
