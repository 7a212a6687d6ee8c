"""What each method must be given, as CEL rules: one table for TrainingRun, RewardModel and the stages of a lap."""

from __future__ import annotations

from flywheel.api.cel import Rule, rule

NEEDS_MODEL = ("Reward", "RejectionSample", "SFT", "DPO", "KTO", "GRPO", "RLOO", "Evaluate")
NEEDS_OPPONENT = ("Evaluate",)
NEEDS_DATASET = {
    "conversations": ("Curate",),
    "train": ("Reward", "DPO", "KTO"),
    "prompts": ("RejectionSample", "GRPO", "RLOO"),
    "user": ("Evaluate",),
}
NEEDS_REWARD = {"Reward": ("RejectionSample", "GRPO", "RLOO"), "Judge": ("Evaluate",)}
MAKES_MODEL = ("SFT", "DPO", "KTO", "GRPO", "RLOO", "Custom")
MAKES_DATA = ("Curate", "RejectionSample", "Record", "Custom")
# Trained by several processes together; the others read or write data, and more pods would do the same work twice.
MANY_NODES = ("Reward", "SFT", "DPO", "KTO", "GRPO", "RLOO", "Custom")
# The default lap's stages (plan/default_stages.py), by what they make: what a stage that is added to them may refer to.
DEFAULT_MODELS = ("sft", "rl")
DEFAULT_DATA = ("curate", "sample")
DEFAULT_REWARDS = ("reward", "judge")
DEFAULT_STAGES = (*DEFAULT_DATA, *DEFAULT_REWARDS, *DEFAULT_MODELS, "evaluate")
EXTENDS = "(has(self.defaultStages) && self.defaultStages == 'Extend')"


def one_of(value: str, words: tuple[str, ...]) -> str:
    """CEL: whether a string is one of the words."""
    return f"{value} == '{words[0]}'" if len(words) == 1 else f"{value} in {list(words)!r}"


def template_rules(*, only: str | None = None, curate_by_default: bool = False) -> tuple[Rule, ...]:
    """Inputs that a method can't do without. A lap gives Curate its conversations by default.

    `only` is the one method that can stand here, if others are refused anyhow.
    """
    needs: list[tuple[tuple[str, ...], str, str, str]] = [
        (NEEDS_MODEL, "has(self.model)", "a model; set 'model' to the one it works on", ".model")
    ]
    needs.append((NEEDS_OPPONENT, "has(self.opponent)", "an opponent; set 'opponent' to the model it is compared with", ".opponent"))
    learns = "has(self.datasets) && self.datasets.exists(d, d.name != 'eval')"
    needs.append((("SFT",), learns, "a dataset to learn from; add one named 'train' to 'datasets'", ".datasets"))
    for name, methods in NEEDS_DATASET.items():
        given = f"has(self.datasets) && self.datasets.exists(d, d.name == '{name}')"
        if curate_by_default and "Curate" in methods:
            given = f"!has(self.datasets) || self.datasets.size() == 0 || ({given})"
        needs.append((methods, given, f"a dataset named '{name}'; add it to 'datasets'", ".datasets"))
    for role, methods in NEEDS_REWARD.items():
        given = f"has(self.rewards) && self.rewards.exists(r, r.role == '{role}')"
        needs.append((methods, given, f"a reward with the role {role}; add one to 'rewards'", ".rewards"))
    needed = tuple(
        rule(f"!({one_of('self.method', methods)}) || ({given})", f"method {{self.method}} needs {what}", at=field)
        for methods, given, what, field in needs
        if only is None or only in methods
    )
    anywhere = _where_rules()
    return (*needed, *(anywhere if only is None else anywhere[-1:]))


def _where_rules() -> tuple[Rule, ...]:
    """What runs on several nodes, and what runs in an image of the user's own."""
    many = list(MANY_NODES)
    return (
        rule(
            f"self.nodes == 1 || self.method in {many!r}",
            f"method {{self.method}} runs on one node; remove 'nodes' ({', '.join(many)} train on many)",
            at=".nodes",
        ),
        rule(
            "self.method != 'Custom' || (has(self.image) && has(self.custom))",
            "method Custom runs a trainer of yours; set 'image' to it, and 'custom' to its command and parametersSchema",
            at=".image",
        ),
        rule(
            "self.method == 'Custom' || !has(self.custom)",
            "'custom' belongs to method Custom, not to {self.method}; remove it, or set method to Custom",
            at=".custom",
        ),
    )


def alone_rules(template: str = "self") -> tuple[Rule, ...]:
    """References that mean something only inside a Generation are refused outside of one."""
    prefix = template.removeprefix("self")
    given = "" if template == "self" else f"!has({template}) || "
    lap_only = "['Stage', 'Base', 'Champion']"
    advice = "means something only in a stage of a Generation; use type Uri, TrainingRun or Generation"
    return (
        *(
            rule(
                f"{given}!has({template}.{field}) || !({template}.{field}.type in {lap_only})",
                f"{field}.type {{{template}.{field}.type}} {advice}",
                at=f"{prefix}.{field}",
            )
            for field in ("model", "opponent")
        ),
        rule(
            f"{given}!has({template}.pool) || !{template}.pool.exists(m, m.type in {lap_only})",
            f"pool has a model of type Stage, Base or Champion, which {advice}",
            at=f"{prefix}.pool",
        ),
        rule(
            f"{given}!has({template}.datasets) || !{template}.datasets.exists(d, d.from.type in ['Stage', 'Conversations'])",
            "datasets has one from Stage or Conversations, which mean something only in a stage of a Generation; use type Uri or "
            "TrainingRun (a Flywheel's conversations lie in file:///flywheel/conversations/<flywheel>)",
            at=f"{prefix}.datasets",
        ),
        rule(
            f"{given}!has({template}.rewards) || !{template}.rewards.exists(r, r.from.type == 'Stage')",
            "rewards has one from Stage, which means something only in a stage of a Generation; use type RewardModel or Uri",
            at=f"{prefix}.rewards",
        ),
    )


def lap_rules() -> tuple[Rule, ...]:
    """References between the stages of a lap: each to a stage that makes the right thing. Circles are the planner's to find."""
    makes_model = f"has(t.run) && t.run.method in {list(MAKES_MODEL)!r}"
    makes_data = f"has(t.run) && t.run.method in {list(MAKES_DATA)!r}"
    models = (makes_model, DEFAULT_MODELS, f"a model ({', '.join(MAKES_MODEL)})")
    fields = (
        ("model", "", *models),
        ("opponent", "", *models),
        ("pool", "e", *models),
        ("datasets", "e.from", makes_data, DEFAULT_DATA, f"data ({', '.join(MAKES_DATA)})"),
        ("rewards", "e.from", "has(t.rewardModel)", DEFAULT_REWARDS, "a reward model ('rewardModel')"),
    )
    known = f"self.stages.exists(t, t.name == e) || {_default('e', DEFAULT_STAGES)}"
    wanted = [("dependsOn", f"!has(s.dependsOn) || s.dependsOn.all(e, {known})", "exists")]
    for field, item, makes, defaults, what in fields:
        holds = " && ".join(f"({_holds(owner, field, item, makes, defaults)})" for owner in ("s.run", "s.rewardModel.training"))
        wanted.append((field, holds, f"makes {what}"))
    return tuple(
        rule(
            f"!has(self.stages) || self.stages.all(s, {condition})",
            f"the {field} of stage '{{self.stages[self.stages.map(s, {condition}).indexOf(false)].name}}' must name a stage that {what}; "
            "correct the name or add that stage",
            at=".stages",
        )
        for field, condition, what in wanted
    )


def _default(name: str, stages: tuple[str, ...]) -> str:
    """CEL: whether a name is one of these default stages, in a lap that extends the default ones."""
    return f"({EXTENDS} && {name} in {list(stages)!r})"


def _holds(owner: str, field: str, item: str, makes: str, defaults: tuple[str, ...]) -> str:
    """CEL: whether what `field` of a stage's template refers to is a stage that makes the right thing."""
    absent = "!has(s.run)" if owner == "s.run" else "!has(s.rewardModel) || !has(s.rewardModel.training)"
    path = f"{owner}.{field}"
    ref = item or path
    made = f"self.stages.exists(t, t.name == {ref}.stage && {makes}) || {_default(f'{ref}.stage', defaults)}"
    check = f"{ref}.type != 'Stage' || {made}"
    return f"{absent} || !has({path}) || " + (f"{path}.all(e, {check})" if item else check)
