{# Every value lies between two bounds. Nulls do not count. #}
{% test between(model, column_name, low=none, high=none, where_true='true') %}
select {{ column_name }}
from {{ model }}
where ({{ where_true }}) and (
  false
  {% if low is not none %}or {{ column_name }} < {{ low }}{% endif %}
  {% if high is not none %}or {{ column_name }} > {{ high }}{% endif %}
)
{% endtest %}

{# Every value is above a bound. #}
{% test above(model, column_name, bound=0, where_true='true') %}
select {{ column_name }} from {{ model }} where ({{ where_true }}) and {{ column_name }} <= {{ bound }}
{% endtest %}

{# A condition holds in every row; where it cannot be decided, it does not. #}
{% test holds(model, that, where_true='true') %}
select * from {{ model }} where ({{ where_true }}) and not coalesce({{ that }}, false)
{% endtest %}

{# No two rows have the same values in these columns. #}
{% test unique_together(model, columns) %}
select {{ columns | join(', ') }}, count(*) as times
from {{ model }}
group by {{ columns | join(', ') }}
having count(*) > 1
{% endtest %}

{# A flag is true or false, never null. #}
{% test flag(model, column_name) %}
select {{ column_name }} from {{ model }} where {{ column_name }} is null
{% endtest %}

{# A time that has passed. #}
{% test past(model, column_name) %}
select {{ column_name }} from {{ model }} where {{ column_name }} > {{ run_time() }} + interval 1 hour
{% endtest %}

{# At least this share of the rows meets a condition. #}
{% test share(model, that, at_least) %}
select * from (
  select avg(case when {{ that }} then 1.0 else 0.0 end) as found from {{ model }}
) as counted
where found < {{ at_least }}
{% endtest %}
