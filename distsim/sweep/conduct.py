"""One study from end to end: points, checks, runs, findings, files."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from distsim import registry
from distsim.sweep.evaluator import Evaluator
from distsim.sweep.executors import crew
from distsim.sweep.findings import Findings, findings
from distsim.sweep.folder import JOURNAL, prepare, write
from distsim.sweep.journal import Journal
from distsim.sweep.points import Space, Tally
from distsim.sweep.runner import Progress, run, screen
from distsim.sweep.shown import reasons
from distsim.sweep.study import Study


@dataclass(slots=True)
class Done:
    """A finished study, or what a dry run found of it."""

    found: Findings
    reused: int = 0  #: points that the journal had
    seconds: float = 0.0
    to_run: int = 0
    notes: list[str] = field(default_factory=list)

    def plan(self, width: int) -> str:
        """What would be run, and why the rest is refused."""
        refused = sum(one.count for one in self.found.refused)
        head = f"{self.to_run:,} of {self.found.size:,} points to run, {refused:,} refused"
        return "\n".join([head, *reasons(self.found.refused, width)])


def conduct(
    study: Study, where: str, *, folder: str | None, source: str = "", workers: int = 0, dask: str | None = None,
    progress: Progress = lambda fraction, what: None,
) -> Done:  # fmt: skip
    """Run what of a study has not been run.

    Args:
        where: what refusals call the study.
        folder: of its journal and results; None: count the points only.
        source: text of its file, kept in the folder.

    Raises: DistsimError. KeyboardInterrupt passes through; what is finished is in the journal then.
    """
    begin = time.perf_counter()
    evaluator: Evaluator = registry.lookup("study", study.kind, where=where)
    objectives = study.objectives or evaluator.objectives(study.varied)
    refused = Tally()
    progress(None, "counting points")
    space = Space(study, evaluator, where)
    tasks = screen(evaluator, space.points(refused), refused, progress, study.sample, study.seed)
    if folder is None:
        empty = findings(study, space.names, space.size, objectives, [], {}, refused)
        return Done(empty, 0, time.perf_counter() - begin, len(tasks))
    target = prepare(folder)
    journal = Journal(target / JOURNAL)
    try:
        known = sum(task.key in journal.done for task in tasks)
        others = len(journal.done) - known
        outcomes = {}
        width = "nothing was left to run"
        if known < len(tasks):
            with crew(min(workers, len(tasks) - known) if workers else 0, dask) as some:
                outcomes = run(evaluator, tasks, some, journal, progress)
                width = some.named
        else:
            outcomes = {task.key: journal.done[task.key] for task in tasks}
        found = findings(study, space.names, space.size, objectives, tasks, outcomes, refused)
        progress(None, f"writing {folder}")
        write(target, found, source)
        seconds = time.perf_counter() - begin
        made = Done(found, known, seconds, len(tasks))
        ran = len(tasks) - known
        made.notes = [f"{ran:,} points run in {seconds:.1f} s on {width}" if ran else width]
        if known or others:
            aside = f"; {others:,} there are of other studies, or of another distsim" if others else ""
            made.notes.append(f"{known:,} points taken from the journal{aside}")
        if journal.damaged:
            made.notes.append(f"warning: {journal.damaged:,} lines of the journal cannot be read; their points ran again")
        made.notes.append(f"results in {folder}")
        return made
    finally:
        journal.close()
