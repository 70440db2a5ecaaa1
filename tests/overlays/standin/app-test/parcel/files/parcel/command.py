"""The frame of both programs: their commands, and their errors."""
import sys

from . import package, place, resolve


def add(commands, name, run, arguments):
    """Add a command that calls `run`, whose docstring is its help, to a parser."""
    added = commands.add_parser(name, help=run.__doc__, allow_abbrev=False)
    added.set_defaults(run=run)
    for argument, settings in arguments.items():
        added.add_argument(argument, **settings)


def main(parser):
    """Run the command that the command line names."""
    options = parser.parse_args()
    try:
        options.run(options)
    except (place.Failed, package.Damaged, resolve.Unmet, OSError) as error:
        sys.exit(f"{parser.prog}: {error}")
