-- Records about published applications that cannot be used, with every reason.
select reasons, publication_number_text, title, _file
from {{ ref('validated.patent_publication_lines') }}
where reasons is not null
