"""Builds the plan of a restore. It never writes: a preview shows the plan, and `apply` carries it out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cache, partial
from itertools import chain, islice

from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from .. import babybuddy
from ..archive.metadata import Metadata
from ..database import MAX_NAMED, Database
from ..dump import needed_generics
from ..kinds import TEXT, Plain
from ..options import RestoreMode, RestoreOptions
from ..scope import part_of
from ..tables import Table, owner_of_keys
from .accounts import (
    account_changes,
    default_settings,
    default_settings_in_words,
    in_words,
    passwords_since,
    people_of,
)
from .apart import has_identity
from .batches import Spool
from .collation import Likeness, collation_conflicts, merge, too_narrow
from .compare import TextComparison
from .dangling import Missing, missing_in, references_of, with_dangling
from .identity import RESOLVERS, Resolver
from .left_behind import (
    attached,
    hanging,
    keys_going,
    referring_to,
    with_adopted,
    with_handed_over,
    with_left_behind,
    with_replaced,
    with_rows,
)
from .members import check_members, in_part_in_words
from .pack import pack_all
from .parts import Others, labels_referred_to, tables_cut_off, tables_in_part, with_owners
from .photos import Placing, State
from .plan import Changes, Identical, PhotoChanges, Plan, rows_of
from .policy import check_policy, lost_in_words, tokens_stay, too_narrow_refusal
from .preview import MOST, PreviewCollector
from .records import RecordReader
from .replaced import Lost, Replaced, counts
from .twins import twins


def build(
    reader: RecordReader,
    database: Database,
    tables: Sequence[Table],
    spool: Spool,
    options: RestoreOptions,
    *,
    superuser: bool,
    excluded: Iterable[str] = (),
    outside: Sequence[Table] = (),
    site: str = "",
    preview: PreviewCollector | None = None,
    placing: Placing | None = None,
    as_text: bool = True,
    into: Database | None = None,
) -> Plan:
    """Check every record of a backup, and return the plan of restoring it into `database`.

    `tables`: those in scope here. `superuser`: whether the user may change accounts. `excluded`: labels of models that
    this site leaves out of backups and restores. `outside`: the tables here that no backup holds. `site`: the id of
    this site. `preview`: collects what a preview shows; if given, changes are counted. `placing`: decides about the
    photos; without it, records keep their names of files. `as_text`: compare the text of records if possible, which is
    faster and has the same result. `into`: the connection to write to, if `database` is a snapshot. Raises
    `InvalidBackup`. If the restore must be refused, nothing is raised; the plan has the reason.
    """
    metadata = reader.archive.metadata
    mode = options.mode
    members = check_members(metadata, tables, excluded, leave_out=options.leave_out)
    chosen = [table for table in tables if part_of(table.label) in options.parts]
    if not superuser and tokens_stay(reader.quiet(), database, chosen, options):
        chosen = [table for table in chosen if table.label != babybuddy.TOKENS]
    untouched = [table for table in chosen if table.label not in metadata.models] if options.as_it_was else []
    # If BACKUP_EXCLUDE named models then, an earlier state of this site says nothing of them.
    chosen = [table for table in chosen if table not in untouched]
    # What an undo leaves refers to rows whose keys come back.
    staying = [] if options.undoes else [t for t in tables if t not in chosen and t not in untouched]
    if metadata.instance not in ("", site) and not options.as_it_was:
        members.append(
            _(
                "The backup was made by another Baby Buddy site, or by this one before its database was set up anew."
            )
        )
    restored, emptied, warnings = _divide(metadata, chosen, mode)
    in_part = tables_in_part(reader, restored)
    warnings += in_part_in_words(in_part) if mode.clears else []
    merge_warnings = merge(reader, database, restored) if options.merge_tags else []
    referring = referring_to(outside, restored, database) if not options.as_it_was else []
    # At the same site, clearing brings back the keys that rows of excluded models have referred to all along.
    if not (mode.clears and metadata.instance == site):
        staying += referring
    # What these refer to must not become another record.
    holding = referring_to([*outside, *untouched], restored, database)
    holding += [table for table in attached([*outside, *untouched], database) if table not in holding]
    in_use = {owner_of_keys(label) for table in staying for label in labels_referred_to(table)}
    if not mode.clears:
        if any(map(needed_generics, holding)):  # which may lead to any model
            in_use |= {owner_of_keys(table.label) for table in restored}
        in_use = with_owners(in_use, restored)
    resolver = RESOLVERS[mode](database, in_use)
    attached_here = cache(lambda: attached([*tables, *outside], database))
    resolver.hanging = cache(lambda table: hanging(table, attached_here(), database))
    narrow = too_narrow(database, reader.archive, restored)
    if narrow and not mode.clears and too_narrow(database, reader.archive, [*filter(_is_asked, restored)]):
        raise too_narrow_refusal(narrow)
    likeness = Likeness(database, resolver.conflicts, merges=options.merge_tags)
    if database.folds_texts:
        resolver.is_alike = likeness
    # What the file lacks of this very site may still be here. Where all is cleared, its keys are those of rows to come;
    # at another site, they are those of other rows.
    is_lost = options.leave_out and not options.as_it_was and (mode.clears or metadata.instance != site)
    in_part = in_part if is_lost else []
    cut_off = tables_cut_off(reader, tables) if is_lost else []
    if not mode.clears and (labels := [table.label for table in chosen if table in cut_off]):
        text = _("The file has no records of these models: %(models)s.")
        warnings.append(text % {"models": ", ".join(labels)})
    find = partial(
        references_of,
        reader.quiet(),
        emptied=emptied,
        scope=tables,
        database=database,
        metadata=metadata,
        mode=mode,
        site=site,
    )
    missing = Missing()
    if options.leave_out and not options.as_it_was:
        missing = missing_in(reader.quiet(), restored, find(restored, but=[*in_part, *cut_off]))
    others = Others(
        reader.quiet(),
        database,
        tables,
        restored,
        resolver.key_map,
        in_part,
        cut_off,
        missing=missing,
        mode=mode,
        site=site,
    )
    resolver.emptied = others.emptied
    resolver.attached = [
        (table, partial(reader.quiet().rows, table, others.without))
        for table in restored
        if table.label in babybuddy.ATTACHED
    ]
    if options.left_passwords and not superuser:
        reader.renamed = passwords_since(reader.quiet(), database, restored)
    if placing is not None:
        placing.decide(reader.quiet(), restored, others.without)
        reader.renamed = placing.renamed
    # No database checks what these refer to.
    with_generics = with_rows([table for table in [*staying, *untouched] if table.generics], database)
    with_generics += [table for table in attached(outside, database) if table not in staying]
    is_all_new = not (staying or holding or with_generics or in_part or cut_off or missing.places)
    is_packed = mode.clears and preview is None and is_all_new
    ordered, resolved = _in_order(resolver, restored)
    if not (options.leave_out or options.as_it_was):
        reader.references = find(restored if is_packed else ordered)
    if is_packed:
        records, identical = pack_all(reader, database, into or database, restored, spool, as_text=as_text)
    else:
        # If all rows are written anew, identical ones are needed as well, so nothing is compared; nor is it if the keys
        # of all are needed, to find out what other rows refer to.
        is_compared = not mode.clears or (preview is not None and not (with_generics or holding))
        as_text = as_text and is_compared
        records, identical = _compare(
            reader, database, ordered, resolved, spool, resolver, others, as_text=as_text
        )
        others.keep_own(resolver, partial(rows_of, spool))
    named = [
        conflict
        for table in restored
        if database.folds_texts and table.uniques
        for conflict in collation_conflicts(database, table, partial(rows_of, spool, table))
    ]
    # Both records of such a pair may match the same row here. That conflict has the same cause, so it is not named.
    named_rows = {(c.table.label, key) for c in named for key in (c.row[0], c.same_as)}
    others_conflicts = [c for c in resolver.conflicts if (c.table.label, c.row[0]) not in named_rows]
    # Nor are two records named that match the same row.
    named_rows |= {(c.table.label, c.row[0]) for c in others_conflicts}
    others_conflicts += [
        conflict
        for table in restored
        if table.uniques and not options.as_it_was  # a database without the constraint may have had them
        for conflict in twins(table, partial(rows_of, spool, table), records[table.label])
        if named_rows.isdisjoint({(table.label, conflict.row[0]), (table.label, conflict.same_as)})
    ]
    plan = Plan(
        metadata=metadata.counted(records),
        options=options,
        tables=restored,
        emptied=emptied,
        spool=spool,
        key_map=resolver.key_map,
        displaced=resolver.displaced,
        matched=resolver.matched,
        highest_left_out=others.highest,
        conflicts=[*named, *others_conflicts][:MAX_NAMED],
        merged=reader.merged,
        renamed=reader.renamed,
        too_narrow=narrow,
        identical=identical,
        warnings=[
            *members,
            *warnings,
            *merge_warnings,
            *likeness.warnings(),
            *reader.warnings,
            *others.warnings(),
            *(placing.warnings if placing else ()),
        ],
        records=records,
        is_packed=is_packed,
        photos=PhotoChanges(placing.count(State.ADDED), placing.count(State.UNCHANGED))
        if placing
        else PhotoChanges(),
        preview=preview,
    )
    plan = replace(plan, children=_children(plan))
    people = people_of(plan, database)
    if people and people.renamed:  # so what belongs to them stays
        label = people.table.label
        plan = replace(plan, matched={**plan.matched, label: {*plan.matched.get(label, ()), *people.renamed}})
    accounts = account_changes(plan, database, people)
    plan = replace(plan, accounts=accounts, warnings=[*plan.warnings, *in_words(accounts)])
    told_by_a_restore: list[str] = []
    if preview is not None:
        plan, lost = _with_changes(plan, database, tables, reader.quiet(), preview, others)
        names = [] if options.as_it_was else default_settings(plan, database, [*tables, *outside])
        told_by_a_restore = [*lost_in_words(lost), *default_settings_in_words(names)]
    plan = check_policy(plan, database, superuser=superuser)
    plan = with_left_behind(plan, database, staying, referring, with_generics, [*outside, *untouched])
    if people:
        plan = with_handed_over(plan, database, [*outside, *untouched], people)
    plan = with_replaced(plan, database, holding, people)
    if metadata.instance != site and not options.as_it_was:
        # Where existing data is kept, rows of what is restored stay, too.
        plan = with_adopted(plan, database, holding if mode.clears else attached_here())
    plan = replace(plan, warnings=[*plan.warnings, *told_by_a_restore])
    return with_dangling(plan, database, reader.references, missing)


def _is_asked(table: Table) -> bool:
    """Tell whether rows here are looked up by texts. A table cannot be asked for characters that it cannot hold."""
    return any(table.columns[place].kind is TEXT for group in table.uniques for place in group)


# -- the tables ---


def _divide(
    metadata: Metadata, tables: Sequence[Table], mode: RestoreMode
) -> tuple[list[Table], list[Table], list[str]]:
    """Return the tables to restore, those to empty although the backup does not contain them, and warnings."""
    restored = [table for table in tables if table.label in metadata.models]
    others = [table for table in tables if table.label not in metadata.models]
    unknown = sorted({table.app for table in tables} - metadata.apps)
    names = {"apps": ", ".join(unknown)}
    warnings = []
    if not mode.clears:
        if unknown:
            warnings.append(
                _("The backup does not know these apps; their data here stays as it is: %(apps)s.") % names
            )
        # Otherwise rows that migrations added to an upgraded backup would replace those that people entered here.
        return [table for table in restored if metadata.knows(table.label)], [], warnings
    if unknown:
        warnings.append(
            _("The backup does not know these apps; their data here would be deleted: %(apps)s.") % names
        )
    lacking = [table.label for table in others if table.app not in unknown]
    if lacking:
        warnings.append(
            ngettext(
                "The backup has no records of %(models)s; those here would be deleted.",
                "The backup has no records of these models; those here would be deleted: %(models)s.",
                len(lacking),
            )
            % {"models": ", ".join(lacking)}
        )
    return restored, others, warnings


# -- the records ---


def _in_order(resolver: Resolver, tables: Sequence[Table]) -> tuple[list[Table], list[Table]]:
    """Return the tables in the order in which their records are compared, and the first of them: those whose keys may
    change, since references in other tables must follow. Of these, tags come first, since they tell entries apart, and
    those that can refer to rows of any table come last."""
    marks = {label for table, _rows in resolver.attached for label in labels_referred_to(table)}
    ordered = sorted(tables, key=lambda table: (bool(table.generics), table.label not in marks))
    resolved = [table for table in ordered if resolver.resolves(table)]
    return [*resolved, *(table for table in ordered if table not in resolved)], resolved


def _compare(
    reader: RecordReader,
    database: Database,
    ordered: Sequence[Table],
    resolved: Sequence[Table],
    spool: Spool,
    resolver: Resolver,
    others: Others,
    *,
    as_text: bool,
) -> tuple[dict[str, int], dict[str, Identical]]:
    """Read and check every record, resolve the keys, and put the rows that may differ into the spool. `ordered`,
    `resolved`: what `_in_order` returns.

    Returns model label -> number of records, and the records that are known to be identical.
    """

    def put(table: Table) -> int:
        count = 0
        for batch in reader.batches(table, others.without):
            count += len(batch[0])
            spool.put(table.label, batch)
            del batch  # which may be long, and so may the next ones
        return count

    comparison = TextComparison(reader, database, lambda table, batch: spool.put(table.label, batch))
    records: dict[str, int] = {}
    identical: dict[str, Identical] = {}
    for table in resolved:
        records[table.label] = put(table)
    resolver.resolve({table: partial(rows_of, spool, table) for table in resolved})
    for table in ordered[len(resolved) :]:
        # Texts can only be compared if neither keys nor references are remapped.
        is_plain = not (resolver.key_map or others.concerns(table) or reader.alters(table))
        # Nor if the rows here would take much memory: these are compared by their keys, a few at a time.
        if as_text and is_plain and not has_identity(table) and not database.is_long(table):
            records[table.label], identical[table.label] = comparison.compare(table)
        else:
            records[table.label] = put(table)
    return records, identical


def _with_changes(
    plan: Plan,
    database: Database,
    tables: Sequence[Table],
    reader: RecordReader,
    preview: PreviewCollector,
    others: Others,
) -> tuple[Plan, Lost]:
    """Compare all rows, and give examples to the preview. Returns the plan with what happens to the rows here; and what
    is lost where existing data is not cleared."""
    changes: dict[str, Changes] = {}
    gone = Replaced(plan, database, tables, reader)
    for table in [*plan.tables, *plan.emptied]:
        before = _count_here(plan, database, table)
        added = changed = replaced = unchanged = 0
        for batch in plan.batches(database, table) if table in plan.tables else ():
            added += len(batch.added)
            changed += len(batch.changed)
            replaced += len(batch.replaced)
            unchanged += batch.unchanged
            gone.add(table, (row[0] for row in batch.replaced))
            if not plan.mode.clears:
                gone.add_changed(table, batch.changed)
            preview.add_batch(database, table, batch)
        same = before == unchanged and not added and not changed and not replaced
        read_up_to = plan.identical.get(table.label, Identical()).up_to
        preview.add_months_here(database, table, same=same, read_up_to=read_up_to)
        displaced = plan.displaced.get(table.label, ())
        if plan.mode.clears:
            removed = before - changed - unchanged
            if removed and (plan.key_map.of(table.label) or others.left_out[table.label]):
                preview.add_removed(database, table, _missing(plan, database, table))
            elif removed:
                preview.add_missing(database, table)
        else:
            removed = len(displaced) + replaced
            if displaced:
                preview.add_removed(database, table, displaced)
        changes[table.label] = Changes(added + replaced, changed, unchanged, removed, replaced)
    replaced_rows = {label: change.replaced for label, change in changes.items()}
    going = gone.find()
    referring = [(table, keys) for table, _part, _targets, keys in gone.referring()]
    emptied = counts(referring)
    altered = counts([*referring, *((table, keys) for table, _column, keys in gone.following())])
    for table in tables:
        keys, more = [*going.get(table.label, ())], altered.get(table.label, 0)
        if keys or more:
            preview.add_removed(database, table, keys)
            old = changes.get(table.label, Changes())
            changes[table.label] = replace(old, removed=old.removed + len(keys), changed=old.changed + more)
    lost = Lost(replaced_rows, {label: len(keys) for label, keys in going.items()}, emptied)
    return replace(plan, changes=changes, going=going), lost


def _children(plan: Plan) -> list[str]:
    """Return the names of the children that are restored, the first of them if there are many."""
    table = plan.table(babybuddy.CHILD)
    if table is None:
        return []
    rows = islice(chain.from_iterable(plan.rows(table)), MAX_NAMED)
    return [babybuddy.child_name(table, row) for row in rows]


def _missing(plan: Plan, database: Database, table: Table) -> list[Plain]:
    """Return the keys of the last rows here that are removed, as `keys_going` yields them, at most `MOST`."""
    return [*islice(keys_going(plan, database, table), MOST)]


def _count_here(plan: Plan, database: Database, table: Table) -> int:
    """Return the number of rows here, if possible without a query: counting rows takes a server as long as reading a
    tenth of them."""
    identical = plan.identical.get(table.label, Identical())
    if identical.up_to is None:
        return database.count(table)
    return identical.rows_read + database.count(table, after=identical.up_to)
