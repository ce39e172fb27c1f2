{# What kind of session a name means. Anything unknown is 'Other', and a test reports it. #}
{% macro session_category(name) %}
case lower(trim({{ name }}))
  when 'race' then 'Race'
  when 'sprint' then 'Sprint'
  when 'qualifying' then 'Qualifying'
  when 'sprint qualifying' then 'Sprint Qualifying'
  when 'sprint shootout' then 'Sprint Qualifying'
  when 'practice 1' then 'Practice'
  when 'practice 2' then 'Practice'
  when 'practice 3' then 'Practice'
  else 'Other'
end
{% endmacro %}

{# Teams by their exact names, with the name that their line has today: AlphaTauri became RB, and RB Racing Bulls. #}
{% macro teams() %}
(
  select * from (values
    ('red bull racing', 'Red Bull Racing', 'red_bull'),
    ('ferrari', 'Ferrari', 'ferrari'),
    ('mercedes', 'Mercedes', 'mercedes'),
    ('mclaren', 'McLaren', 'mclaren'),
    ('alpine', 'Alpine', 'alpine'),
    ('aston martin', 'Aston Martin', 'aston_martin'),
    ('williams', 'Williams', 'williams'),
    ('alphatauri', 'AlphaTauri', 'racing_bulls'),
    ('rb', 'RB', 'racing_bulls'),
    ('racing bulls', 'RB', 'racing_bulls'),
    ('alfa romeo', 'Alfa Romeo', 'sauber'),
    ('kick sauber', 'Sauber', 'sauber'),
    ('sauber', 'Sauber', 'sauber'),
    ('audi', 'Audi', 'sauber'),
    ('haas f1 team', 'Haas F1 Team', 'haas'),
    ('cadillac', 'Cadillac', 'cadillac')
  ) as t(known_name, team_category, team_lineage)
)
{% endmacro %}
