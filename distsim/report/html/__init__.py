"""The report: one HTML file from any results folder, that needs no network and no server."""
