"""Methods side by side on some samples, as one HTML file: ``kxai.report(model, inputs, methods)``."""

from kxai.reports.build import DEFAULT_METHODS, MAX_MEGABYTES, Report, report

__all__ = ["DEFAULT_METHODS", "MAX_MEGABYTES", "Report", "report"]
