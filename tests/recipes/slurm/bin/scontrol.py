"""`scontrol show hostnames LIST` and `scontrol requeue JOB`."""

import os
import sys
import time
from pathlib import Path

STATE = Path(os.environ["FAKE_SLURM"])
match sys.argv[1:]:
    case ["show", "hostnames", hosts]:
        print("\n".join(hosts.split(",")))
    case ["requeue", job]:
        if job != (STATE / "job").read_text():
            sys.exit(f"scontrol: error: {job} is not this job, or is a whole array")
        if (STATE / "state").read_text() == "PENDING":
            sys.exit("Job is pending execution for job " + job)
        if not (STATE / "may-requeue").exists():
            sys.exit("Requested operation is presently disabled for job " + job)
        (STATE / "requeue").touch()
        while (STATE / "requeue").exists():  # slurmctld has answered, and has sent SIGTERM by then
            time.sleep(0.005)
    case words:
        sys.exit(f"scontrol: {words}?")
