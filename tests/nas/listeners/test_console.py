import io

from rich.console import Console

from nas.listeners.console import ConsoleListener


def test_work_before_the_first_candidate_has_a_bar_until_it_is_complete():
    console = Console(file=io.StringIO(), force_terminal=True, width=100)
    with ConsoleListener(console) as listener:
        for n_done in range(4):
            listener.on_progress("reference sample", n_done, 4)
            assert [(task.description, task.completed, task.total) for task in listener._progress.tasks] == [
                ("reference sample", n_done, 4)
            ]
        listener.on_progress("reference sample", 4, 4)
        assert listener._progress.tasks == []
    assert "reference sample" in console.file.getvalue()
